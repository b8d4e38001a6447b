//! Streams over UDP between udx-native in a Node process and ferrocore-udx in this one.
#![cfg(unix)]

mod ends;
mod links;
mod streams;
