//! bee-index (skeleton)
