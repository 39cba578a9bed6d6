"""A window with the camera images while a rollout goes on."""
