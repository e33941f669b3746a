//! The rules of the protocol, each of which can be dropped.

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Which rules hold. By default all do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Rules {
            $($(#[doc = $doc])+ pub $name: bool,)+
        }

        impl Default for Rules {
            fn default() -> Self {
                Rules { $($name: true,)+ }
            }
        }

        impl Rules {
            /// The names of all rules.
            pub const NAMES: &[&str] = &[$(stringify!($name),)+];

            /// Returns all rules but the one of this name; `None` if there is no such rule.
            #[must_use]
            pub fn without(name: &str) -> Option<Rules> {
                let mut rules = Rules::default();
                match name {
                    $(stringify!($name) => rules.$name = false,)+
                    _ => return None,
                }
                Some(rules)
            }
        }
    };
}

rules! {
    /// R1: the journal entry of a key follows the reply to the command that changed it.
    r1_act_before_announcing,
    /// R2: a bump's entries go out before its token.
    r2_entry_before_token,
    /// R2: a bump's entries go out after its token.
    r2_entry_after_token,
    /// R2: a bump that finds the journal full with its first entries is sent again as a whole.
    r2_sent_again_whole,
    /// R3: every send of a bump has a fresh token.
    r3_fresh_token,
    /// R4: the local tier bumps, or removes, again after the acknowledgement.
    r4_again,
    /// R5: a token is kept only if its group has not moved since before it was asked for.
    r5_kept_if_unmoved,
    /// R5: a known token judges only while the trust lease holds.
    r5_judges_under_trust,
    /// R6: a copy is stored only if its ticket stands.
    r6_ticket,
    /// R6: a copy is as old as its ticket, which was taken before anything was sent.
    r6_old_born,
    /// R6: journal entries of a key kill its tickets.
    r6_news_kill_tickets,
    /// R7: the tokens of groups that were not known when the load began are followed by a look at the journal.
    r7_journal_after_late_tokens,
    /// R8: a command with a version runs on the connection that read it.
    r8_own_connection,
    /// R9: an insert is written under the version that it has read.
    r9_insert_under_version,
    /// R9: an inserted entry is dropped after the acknowledgement unless it is still this caller's.
    r9_dropped_unless_good,
    /// R10: a resync bumps every local generation, which kills tickets, and forgets tokens.
    r10_resync_bumps,
    /// R10: trust is extended after the news were applied.
    r10_trust_last,
    /// R11: a removal purges the write that waits, and drops the one that is being sent.
    r11_purge,
    /// R11: until the removal is through, the key of a purged write counts for nothing.
    r11_purged_counts,
    /// R11: a queued write is as old as its place in the queue.
    r11_old_as_queued,
    /// R12: an item that is owed a deletion counts for nothing.
    r12_owed_items,
    /// R12: the token of a group that is owed a bump counts for nothing.
    r12_owed_groups,
    /// The trust lease begins before the look is sent.
    trust_noted_before,
    /// What a process has loaded itself is vouched for from the beginning of its load, not from its end.
    vouched_from_the_beginning,
    /// The lease of a load elects one process.
    one_lease,
}
