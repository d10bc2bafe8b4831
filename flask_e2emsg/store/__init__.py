"""The durable side: accounts, mailboxes and history in the host's SQL database."""
