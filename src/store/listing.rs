//! Lists with filters: the only SQL built at run time (sea-query). (Follows with the views' columns.)
