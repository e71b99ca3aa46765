// SPDX-License-Identifier: GPL-2.0

//! `smcr info` and `smcd info`.

use serde_json::json;
use smc_tools_common::smc::{Smc, SystemInfo};
use smc_tools_common::Error;
use std::fs;
use std::path::Path;

/// Versions of RoCE that the addresses of devices are of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Roce {
    v1: bool,
    v2: bool,
}

/// Looks at the GIDs of devices below `base`.
fn roce<'n>(base: &Path, devices: impl Iterator<Item = &'n str>) -> Roce {
    let mut roce = Roce::default();
    for device in devices {
        for port in ["1", "2"] {
            let types = base
                .join(device)
                .join("ports")
                .join(port)
                .join("gid_attrs/types");
            // A port that is not there, or an entry that is free, cannot be read.
            for entry in fs::read_dir(types).into_iter().flatten().flatten() {
                match fs::read_to_string(entry.path()).unwrap_or_default().trim() {
                    "IB/RoCE v1" => roce.v1 = true,
                    "RoCE v2" => roce.v2 = true,
                    _ => {}
                }
            }
        }
    }
    roce
}

fn versions(v1: bool, v2: bool) -> &'static str {
    match (v1, v2) {
        (false, false) => "n/a",
        (true, false) => "v1",
        (false, true) => "v2",
        (true, true) => "v1 v2",
    }
}

fn text(info: &SystemInfo, smcd: bool, roce: &Roce) -> String {
    let seid = info.seid.as_deref().unwrap_or("n/a");
    format!(
        "Kernel Capabilities\n\
         SMC Version:      {}.{}\n\
         SMC Hostname:     {}\n\
         SMC-D Features:   {}\n\
         SMC-R Features:   {}\n\
         \n\
         Hardware Capabilities\n\
         SEID:             {seid}\n\
         ISM:              {}\n\
         RoCE:             {}\n",
        info.version,
        info.release,
        info.host,
        versions(smcd, smcd && info.ism_v2),
        versions(true, info.smcr_v2),
        versions(smcd, smcd && info.ism_v2),
        versions(roce.v1, roce.v2),
    )
}

/// Prints it.
pub(crate) fn show(smc: &mut Smc, json: bool) -> Result<(), Error> {
    let info = smc.system_info()?;
    let devices = smc.devices()?;
    let (ism, _) = smc.smcd_counts()?;
    let roce = roce(
        Path::new("/sys/class/infiniband"),
        devices.iter().map(|device| device.name.as_str()),
    );
    if !json {
        return crate::print(&text(&info, ism > 0, &roce));
    }
    crate::print_json(&json!({
        "version": info.version, "release": info.release, "hostname": info.host, "seid": info.seid,
        "ism_devices": ism, "ism_v2": info.ism_v2, "smcr_v2": info.smcr_v2,
        "roce_v1": roce.v1, "roce_v2": roce.v2,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> SystemInfo {
        SystemInfo {
            version: 2,
            release: 1,
            ism_v2: false,
            host: "here".into(),
            seid: None,
            smcr_v2: true,
        }
    }

    #[test]
    fn lines_are_those_of_ibms_tool() {
        let roce = Roce {
            v1: false,
            v2: true,
        };
        assert_eq!(
            text(&info(), false, &roce),
            "Kernel Capabilities\n\
             SMC Version:      2.1\n\
             SMC Hostname:     here\n\
             SMC-D Features:   n/a\n\
             SMC-R Features:   v1 v2\n\
             \n\
             Hardware Capabilities\n\
             SEID:             n/a\n\
             ISM:              n/a\n\
             RoCE:             v2\n"
        );
        assert!(text(&info(), true, &Roce::default()).contains("ISM:              v1\n"));
    }

    #[test]
    fn versions_of_roce_are_those_of_the_addresses() {
        let base = std::env::temp_dir().join(format!("smcr-roce-{}", std::process::id()));
        let types = base.join("rxe0/ports/1/gid_attrs/types");
        fs::create_dir_all(&types).unwrap();
        fs::write(types.join("0"), "RoCE v2\n").unwrap();
        assert_eq!(
            roce(&base, ["rxe0", "none"].into_iter()),
            Roce {
                v1: false,
                v2: true
            }
        );
        fs::write(types.join("1"), "IB/RoCE v1\n").unwrap();
        assert!(roce(&base, ["rxe0"].into_iter()).v1);
        assert_eq!(roce(&base, ["none"].into_iter()), Roce::default());
        fs::remove_dir_all(&base).unwrap();
    }
}
