//! The tools that `bench s3` compares with. Their names are valid words also where buckets are not compiled in.

use crate::compare::Peer;

/// Commands to copy an object from `$1` to `$2`.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "aws",
        program: "aws",
        install: "pip install awscli",
        script: "aws s3 cp --only-show-errors \"$1\" \"$2\"",
    },
    Peer {
        name: "s5cmd",
        program: "s5cmd",
        install: "https://github.com/peak/s5cmd/releases",
        script: "s5cmd --log error --endpoint-url \"$AWS_ENDPOINT_URL\" cp \"$1\" \"$2\"",
    },
];
