"""One module or folder for each command: `run` is the command, `EXAMPLES` its help's last lines."""
