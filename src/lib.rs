//! . (skeleton)
