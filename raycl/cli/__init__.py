"""The command line: parse, call, print. Every subcommand imports what it needs itself."""
