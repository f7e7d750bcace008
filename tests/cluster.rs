//! A real cluster: the article and what it promises.
