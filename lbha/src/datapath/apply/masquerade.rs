//! Masquerade rules and their sources.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aya::maps::{Array, MapData, MapError, lpm_trie::LpmTrie};
use lbha_common::{
    limits::MAX_MASQUERADES,
    masquerade::{MAX_ADDRESSES, Rule, rule_flag},
};

use super::{
    ApplyError, Change, InUse, MasqueradeOwner, ignore_absent, map_error_of,
    owners::{Owner, Owners},
};
use crate::{
    datapath::{
        desired::{Desired, Masquerade},
        family::Family,
        ids::Ids,
    },
    net::IpPrefix,
};

/// What a rule is known by while this daemon runs: its sources may change one by one.
type Identity = u32;

/// The rules of one family.
pub(super) struct Masquerades<A: Family> {
    /// Source prefixes to rules.
    sources: LpmTrie<MapData, A, u32>,
    rules: Array<MapData, Rule<A>>,
    ids: Ids<Identity>,
    next: Identity,
    /// Sources by rule, as last asked for; no prefix is in two.
    sources_of: BTreeMap<Identity, BTreeSet<IpPrefix>>,
    written_sources: BTreeMap<IpPrefix, u32>,
    written: HashMap<u32, Rule<A>>,
}

impl<A: Family> Masquerades<A> {
    /// Takes over what the maps hold.
    pub fn adopt(
        sources: LpmTrie<MapData, A, u32>,
        rules: Array<MapData, Rule<A>>,
        owners: &mut Owners,
    ) -> Result<Self, MapError> {
        let mut written_sources = BTreeMap::new();
        for entry in sources.iter() {
            let (key, index) = entry?;
            written_sources.extend(A::prefix_of(&key).map(|prefix| (prefix, index)));
        }
        let mut ids = Ids::new(0, MAX_MASQUERADES as u32);
        let mut next = 0;
        let (mut written, mut sources_of) = (HashMap::new(), BTreeMap::new());
        for index in 0..MAX_MASQUERADES as u32 {
            let rule = rules.get(&index, 0)?;
            if rule.flags & rule_flag::VALID == 0 {
                continue;
            }
            ids.adopt(next, index);
            let of_rule = written_sources.iter().filter(|(_, to)| **to == index);
            sources_of.insert(next, of_rule.map(|(prefix, _)| *prefix).collect());
            next += 1;
            owners.adopt(owner::<A>(index), rule.owner.into());
            written.insert(index, rule);
        }
        Ok(Self { sources, rules, ids, next, sources_of, written_sources, written })
    }

    /// Rules first, then the sources that lead to them; a source that leads nowhere any more goes last.
    pub fn write(
        &mut self,
        desired: &Desired,
        sweep: u64,
        owners: &mut Owners,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        let mut wanted = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for masquerade in &desired.masquerades {
            let sources: BTreeSet<IpPrefix> =
                masquerade.sources.iter().filter(|p| A::of(p.addr()).is_some()).copied().collect();
            if sources.is_empty() {
                continue;
            }
            let identity = self.identify(&sources, &taken);
            let index = self.ids.acquire(&identity).ok_or(ApplyError::Masquerades(A::VERSION))?.0;
            taken.insert(identity);
            let owner = owners.acquire(&owner::<A>(index))?;
            let rule = rule(masquerade, owner, self.written.get(&index));
            if self.write_rule(index, rule)? || self.sources_of.get(&identity) != Some(&sources) {
                let externals = rule.addresses[..usize::from(rule.count)].iter();
                changes.push(Change::Masquerade(
                    sources.iter().copied().collect(),
                    Some(externals.map(|addr| addr.ip()).collect()),
                ));
            }
            wanted.extend(sources.iter().map(|source| (*source, index)));
            for others in self.sources_of.values_mut() {
                others.retain(|source| !sources.contains(source));
            }
            self.sources_of.insert(identity, sources);
        }
        self.write_sources(wanted)?;
        for (identity, sources) in &self.sources_of {
            let lost = !taken.contains(identity) && !self.ids.is_retired(identity);
            if lost && !sources.is_empty() {
                changes.push(Change::Masquerade(sources.iter().copied().collect(), None));
            }
        }
        self.ids.retain(sweep, |identity| taken.contains(identity));
        Ok(())
    }

    /// The rule that has one of these sources, if it is not taken yet, or a new one.
    fn identify(&mut self, sources: &BTreeSet<IpPrefix>, taken: &BTreeSet<Identity>) -> Identity {
        let known = self
            .sources_of
            .iter()
            .find(|(identity, of_rule)| !taken.contains(identity) && !of_rule.is_disjoint(sources));
        known.map_or_else(
            || {
                self.next += 1;
                self.next - 1
            },
            |(identity, _)| *identity,
        )
    }

    /// Whether it was another one before.
    fn write_rule(&mut self, index: u32, rule: Rule<A>) -> Result<bool, ApplyError> {
        if self.written.get(&index) == Some(&rule) {
            return Ok(false);
        }
        self.rules.set(index, rule, 0).map_err(map_error_of::<A, _>("RULES"))?;
        self.written.insert(index, rule);
        Ok(true)
    }

    fn write_sources(&mut self, wanted: BTreeMap<IpPrefix, u32>) -> Result<(), ApplyError> {
        let error = map_error_of::<A, _>;
        for (source, index) in &wanted {
            if self.written_sources.get(source) != Some(index)
                && let Some(key) = A::key_of(source)
            {
                self.sources.insert(&key, index, 0).map_err(error("MASQUERADE"))?;
            }
        }
        for source in self.written_sources.keys().filter(|source| !wanted.contains_key(source)) {
            if let Some(key) = A::key_of(source) {
                ignore_absent(self.sources.remove(&key)).map_err(error("MASQUERADE"))?;
            }
        }
        self.written_sources = wanted;
        Ok(())
    }

    /// Whether the rule at an index is asked for.
    pub fn is_wanted(&self, index: u32) -> bool {
        self.written.contains_key(&index) && !self.ids.retired().any(|(_, id)| id == index)
    }

    pub fn owners(&self) -> impl Iterator<Item = MasqueradeOwner> {
        self.sources_of.iter().filter_map(|(identity, sources)| {
            Some(MasqueradeOwner {
                owner: self.written.get(&self.ids.get(identity)?)?.owner.into(),
                sources: sources.iter().copied().collect(),
                retired: self.ids.is_retired(identity),
            })
        })
    }

    /// Gives back the indices that neither bindings nor, by the rule's owner, flows refer to. Gives the owners that the
    /// remaining rules refer to.
    pub fn release(
        &mut self,
        in_use: &InUse,
        bound: &HashSet<u16>,
    ) -> Result<HashSet<u32>, ApplyError> {
        let used = |index: u32| {
            let rule = self.written.get(&index);
            bound.contains(&(index as u16))
                || rule.is_some_and(|rule| in_use.owners.contains(&rule.owner))
        };
        for (identity, index) in self.ids.release(in_use.sweep, used) {
            self.rules.set(index, Rule::default(), 0).map_err(map_error_of::<A, _>("RULES"))?;
            self.written.remove(&index);
            self.sources_of.remove(&identity);
        }
        Ok(self.written.values().map(|rule| rule.owner.into()).collect())
    }
}

fn owner<A: Family>(index: u32) -> Owner {
    if A::VERSION == 4 { Owner::Rule4(index) } else { Owner::Rule6(index) }
}

fn rule<A: Family>(masquerade: &Masquerade, owner: u32, before: Option<&Rule<A>>) -> Rule<A> {
    let (first, last) = masquerade.ports;
    let externals: Vec<A> = masquerade.externals.iter().copied().filter_map(A::of).collect();
    let mut rule = Rule {
        // A packet may be between the number of addresses and its choice among them while the rule is replaced: there
        // must be an address at every place, and when there is none any more, the last one.
        addresses: before.map(|before| before.addresses).unwrap_or_default(),
        count: externals.len().min(MAX_ADDRESSES) as u16,
        owner: owner as u16,
        port_first: first,
        port_count: last.saturating_sub(first).saturating_add(1),
        max_ports: masquerade.max_ports,
        flags: rule_flag::VALID,
        _pad: 0,
    };
    for (slot, external) in rule.addresses.iter_mut().zip(externals.iter().cycle()) {
        *slot = *external;
    }
    if masquerade.endpoint_independent {
        rule.flags |= rule_flag::ENDPOINT_INDEPENDENT;
    }
    rule
}
