//! `chancery bench`
