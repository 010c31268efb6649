"""Layer 2, pure: the text of YAML files to the vocabulary of agent.model, or every error in them at once."""
