"""From a value to the store: the journal on disk, the threads that write and send it, and what is left over."""
