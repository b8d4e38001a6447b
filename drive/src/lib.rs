//! drive (skeleton)
