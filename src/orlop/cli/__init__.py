"""The `orlop` command: a thin face on the client, one module per command."""
