"""What the arms of an experiment did, with statistics."""
