"""The held-out suite: learned schedules against tuned and untuned ones on kinds that meta-training never draws."""
