//! Says what a stack is: properties layer by layer, fields, header sizes, plans.
