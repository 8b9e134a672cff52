//! The files of Algo and others, as a tunnel of ours.
