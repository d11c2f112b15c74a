//! Real sshds of this machine, each with a port, a host key and a directory of its own, and all that goes wrong between
//! them and us.

pub mod hosts;

use crate::fleet::hosts::Fleet;
use crate::parts::cx;
use crate::target::contract;
use gangplank::target::{self, Delivery};

#[test]
fn the_contract_over_ssh() {
    let Some(fleet) = Fleet::start(1) else { return };
    let dir = tempfile::tempdir().unwrap();
    let cx = cx(dir.path()).with_vars([("PATH".to_owned(), fleet.path())]);
    contract(&cx, dir.path(), &*target::open(&cx, &fleet.target(0, "with space/it's")).unwrap(), &|release| {
        Delivery::Push(release)
    });
}
