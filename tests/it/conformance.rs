//! Answers of the CircleCI on loopback against the specification of API v2: what comes next.
