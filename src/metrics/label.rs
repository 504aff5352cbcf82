//! Labels: closed enums, so that the number of series is known before any traffic.

/// Declares a closed label: the enum, its values in order, and their text.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The text of the label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

label! {
    /// How a request wants to be carried.
    Kind {
        /// A tunnel asked for by `CONNECT`.
        Connect => "connect",
        /// A plain HTTP request in absolute-form.
        Forward => "forward",
    }
}

label! {
    /// Which way bytes went.
    Direction {
        /// From the client towards the upstream.
        ClientToUpstream => "client_to_upstream",
        /// From the upstream towards the client.
        UpstreamToClient => "upstream_to_client",
    }
}

label! {
    /// The outcome of a request in one word.
    Outcome {
        /// Let through, and answered by the upstream.
        Allowed => "allowed",
        /// Refused by policy.
        Denied => "denied",
        /// Let through, though policy in enforcement would have refused it.
        WouldDeny => "would_deny",
        /// Not refused, and not answered by the upstream either.
        Failed => "failed",
    }
}

label! {
    /// Where a connection came in.
    ListenerKind {
        /// `OUTGATE_LISTEN`.
        Proxy => "proxy",
        /// `OUTGATE_ADMIN_LISTEN`.
        Admin => "admin",
        /// `OUTGATE_INSPECT_LISTEN`.
        Inspect => "inspect",
    }
}

label! {
    /// How a tunnel ended.
    End {
        /// Both sides finished.
        Closed => "closed",
        /// The client reset the connection, or vanished.
        ClientReset => "client_reset",
        /// The upstream reset the connection, or vanished.
        UpstreamReset => "upstream_reset",
        /// No byte in either direction for `OUTGATE_IDLE_TIMEOUT`.
        IdleTimeout => "idle_timeout",
        /// `OUTGATE_MAX_LIFETIME` was over.
        Lifetime => "lifetime",
        /// A new policy denies it, or an operator closed it.
        Revoked => "revoked",
        /// The gateway shut down.
        Drained => "drained",
        /// The TLS server name was not the authority asked for.
        SniMismatch => "sni_mismatch",
        /// A byte budget was used up.
        Budget => "budget",
        /// The tunnel's task was dropped.
        Cancelled => "cancelled",
    }
}
