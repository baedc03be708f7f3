"""Does everything in a knowledge base agree with the stored texts? Reads, never writes."""
