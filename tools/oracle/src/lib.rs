//! wadjet-oracle
