//! The runnable examples of larder lie beside this file's folder.
