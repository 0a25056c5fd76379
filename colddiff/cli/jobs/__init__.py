"""`colddiff list | status | logs | stop | wait | delete`: commands for submitted jobs."""
