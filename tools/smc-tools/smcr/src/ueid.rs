// SPDX-License-Identifier: GPL-2.0

//! `smcr ueid`, `smcd ueid` and `smcd seid`.

use crate::args::{SeidAction, UeidAction};
use serde_json::json;
use smc_tools_common::smc::Smc;
use smc_tools_common::ueid::Ueid;
use smc_tools_common::Error;

fn checked(eid: &str) -> Result<Ueid, Error> {
    Ueid::parse(eid).map_err(|why| Error::Refused(format!("'{eid}' is no enterprise ID: it {why}")))
}

/// Does it.
pub(crate) fn run(smc: &mut Smc, action: Option<&UeidAction>, json: bool) -> Result<(), Error> {
    match action {
        None | Some(UeidAction::Show) => {
            let all = smc.ueids()?;
            if json {
                return crate::print_json(&json!({ "ueids": all }));
            }
            all.iter()
                .try_for_each(|ueid| crate::print(&format!("{ueid}\n")))
        }
        Some(UeidAction::Add { eid }) => smc.add_ueid(&checked(eid)?),
        Some(UeidAction::Del { eid }) => smc.remove_ueid(&checked(eid)?),
        Some(UeidAction::Flush) => smc.flush_ueids(),
    }
}

/// The same for the system's.
pub(crate) fn system(smc: &mut Smc, action: Option<&SeidAction>, json: bool) -> Result<(), Error> {
    match action {
        None | Some(SeidAction::Show) => {
            let seid = smc.seid()?;
            if json {
                let (name, enabled) = seid.unzip();
                return crate::print_json(&json!({ "seid": name, "enabled": enabled }));
            }
            crate::print(&match seid {
                None => "n/a\n".into(),
                Some((name, true)) => format!("{name} [enabled]\n"),
                Some((name, false)) => format!("{name} [disabled]\n"),
            })
        }
        Some(SeidAction::Enable) => smc.set_seid(true),
        Some(SeidAction::Disable) => smc.set_seid(false),
    }
}
