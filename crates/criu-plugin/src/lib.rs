//! A plugin of CRIU (`criu-plugin.h`): it makes CRIU act as the maker of a VE's user namespace.
//!
//! The launcher makes each VE's user namespace as the VE's own root user (see
//! `runtime::launcher`), so that inotify and namespaces count against the VE and not against
//! root's one quota for all. CRIU, run as root, falls short of this twice:
//!
//! - a dump asks for the limits of each process. prlimit(2) wants `CAP_SYS_RESOURCE`, which the
//!   maker of a user namespace has in it, and root only where nobody took it from him (a node in a
//!   container or a virtual machine often lacks it);
//! - a restore makes the user namespace anew: as root's, it would count against root's quota, and
//!   the nineteenth woken Debian would fail to watch a file.
//!
//! So when CRIU has checked that it is root, and before it does anything, this becomes the user that
//! `VESSEL_UID_BASE` names, and keeps all capabilities; its helpers go back to root.

use rustix::process::{DumpableBehavior, Uid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
    set_thread_res_uid,
};

/// Variable with the VE's first user id. Without it nothing is done.
const VARIABLE: &str = "VESSEL_UID_BASE";

/// Called by CRIU at the start of a dump or restore; anything but 0 ends it.
#[expect(
    unsafe_code,
    reason = "CRIU looks for this name; no other library of the program has it"
)]
#[unsafe(no_mangle)]
pub extern "C" fn cr_plugin_init() -> i32 {
    let Some(text) = std::env::var_os(VARIABLE) else {
        return 0;
    };
    let base = text.to_str().and_then(|text| text.parse().ok());
    base.map_or(-1, |base| become_maker(base).map_or(-1, |()| 0))
}

/// CRIU has one thread here, so the thread's ids are the process's.
fn become_maker(base: u32) -> std::io::Result<()> {
    let bits = capabilities_secure_bits()? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
    set_capabilities_secure_bits(bits)?;
    kernel::fork::at_fork_in_child(become_root)?;
    act_as(base)
}

/// What CRIU forks (and does not clone) are its helpers: they do for the VE's processes what takes
/// the node's root, such as writing a host name or moving a process between groups of cgroup v1.
extern "C" fn become_root() {
    // Refused to a helper of a user namespace without root only; there it stays what it is.
    let _ = act_as(0);
}

/// The effective user is what counts. The real one goes with it, because libxtables, which CRIU locks
/// the network with, takes a difference for a setuid program and ends it with code 111. The saved
/// one stays root: it is the way back.
fn act_as(user: u32) -> std::io::Result<()> {
    let user = Uid::from_raw(user);
    set_thread_res_uid(user, user, None::<Uid>)?;
    // A change of user takes a process its own /proc files, which CRIU writes to.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}
