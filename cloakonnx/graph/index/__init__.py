"""Who makes and reads each tensor, its type, shape and constant value; what an output means."""
