"""The part of the HTTP API that is about knowledge bases: `/kb`."""
