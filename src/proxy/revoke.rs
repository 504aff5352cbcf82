//! Another policy comes into force: what is open is judged again, and only what it denies is closed.

use std::sync::Arc;

use super::Proxy;
use crate::metrics::End;
use crate::policy::{Access, Policy};
use crate::tunnels::{Opening, Tunnel};

impl Proxy {
    /// Puts a policy in force and closes what it denies; tells how many tunnels that were.
    ///
    /// A request that has been authorised already goes on; a tunnel that it is about to open is
    /// judged when it enters the table.
    pub fn enforce(&self, policy: Policy) -> usize {
        self.enforced.replace(policy);
        let in_force = self.enforced.load();
        let policy = in_force.policy();
        let mut revoked = 0;
        for tunnel in self.tunnels.list() {
            if !permits(policy, &tunnel.opening) {
                tunnel.end(End::Revoked);
                revoked += 1;
            }
        }
        self.sweep_idle();
        revoked
    }

    /// Closes idle upstream connections that the policy in force has no more use for, and those
    /// that are idle for too long. One that was in use when the policy changed is among them later.
    pub(super) fn sweep_idle(&self) {
        let in_force = self.enforced.load();
        let policy = in_force.policy();
        self.pool
            .sweep(|target, address| policy.could_reach(target, address.ip()));
    }

    /// Ends a tunnel that a policy denies which came into force while it was being opened.
    pub(super) fn judge_again(&self, tunnel: &Tunnel) {
        let in_force = self.enforced.load();
        if in_force.generation() != tunnel.opening.generation
            && !permits(in_force.policy(), &tunnel.opening)
        {
            tunnel.end(End::Revoked);
        }
    }
}

fn permits(policy: &Arc<Policy>, opening: &Opening) -> bool {
    let client = policy.identify(opening.client.ip(), opening.user.as_deref());
    let access = match &opening.path {
        Some(path) => Access::Forward { path },
        None => Access::Connect,
    };
    policy
        .authorize(&client, &opening.target, access)
        .is_ok_and(|permit| permit.admits(opening.upstream.ip()).is_ok())
}
