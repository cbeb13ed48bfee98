"""Names of containers by DNS: a process of its own answers for all networks, and outlives orlopd.

`director` is the daemon's side: it starts the process (`server`), tells it who is where
(`messages`), and has it replaced when it has died. In the process, `table` knows the names,
`answers` speaks the protocol, and `upstream` asks others what containers are not called.
"""
