"""Resources of judges outside of the process: files, local models, and endpoints over HTTP."""
