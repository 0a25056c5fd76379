"""The protocol that all verbs share: a job, its folder, its attempts, and how it is submitted."""
