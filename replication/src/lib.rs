//! replication (skeleton)
