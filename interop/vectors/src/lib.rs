//! Nothing: the manifest pins a package whose data is read.
