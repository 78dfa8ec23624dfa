"""From a config to artifacts: the plan and its nodes, code digests, publishing, explaining."""
