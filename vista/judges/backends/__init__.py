"""What judges reach outside for: files, local models, and endpoints over HTTP."""
