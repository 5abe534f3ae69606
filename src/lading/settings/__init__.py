"""The only reader of the environment, the configuration file and mounted secrets."""
