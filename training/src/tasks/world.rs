//! The small invented world whose facts a model has to know by heart.
//!
//! It is the same in all splits: what differs between them is which facts are asked for together, and how.

/// One of the world's people.
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) town: &'static str,
    pub(super) job: &'static str,
    pub(super) animal: &'static str,
    pub(super) colour: &'static str,
}

/// One of the world's towns.
pub(super) struct Town {
    pub(super) name: &'static str,
    pub(super) river: &'static str,
    pub(super) region: &'static str,
    pub(super) good: &'static str,
}

const fn person(
    name: &'static str,
    town: &'static str,
    job: &'static str,
    animal: &'static str,
    colour: &'static str,
) -> Person {
    Person { name, town, job, animal, colour }
}

const fn town(name: &'static str, river: &'static str, region: &'static str, good: &'static str) -> Town {
    Town { name, river, region, good }
}

/// Who lives where, works as what, keeps which animal and likes which colour.
pub(super) const PEOPLE: [Person; 40] = [
    person("Ada", "Dunmere", "teacher", "sheep", "green"),
    person("Arlo", "Larkham", "painter", "dog", "blue"),
    person("Beth", "Hollin", "singer", "rabbit", "grey"),
    person("Bruno", "Nettlow", "painter", "cat", "brown"),
    person("Clara", "Cragfell", "singer", "horse", "blue"),
    person("Colin", "Dunmere", "farmer", "duck", "blue"),
    person("Daisy", "Esker", "miller", "rabbit", "brown"),
    person("Dario", "Dunmere", "gardener", "duck", "white"),
    person("Edith", "Nettlow", "miller", "horse", "grey"),
    person("Elmer", "Birchby", "baker", "goat", "black"),
    person("Fanny", "Hollin", "farmer", "parrot", "yellow"),
    person("Felix", "Greywick", "builder", "horse", "green"),
    person("Gwen", "Aldmoor", "tailor", "parrot", "red"),
    person("Gus", "Kelder", "farmer", "dog", "brown"),
    person("Hilda", "Aldmoor", "clerk", "hen", "yellow"),
    person("Hugo", "Birchby", "doctor", "sheep", "blue"),
    person("Iris", "Dunmere", "doctor", "goat", "grey"),
    person("Ivor", "Greywick", "builder", "fox", "brown"),
    person("Julia", "Esker", "baker", "hen", "black"),
    person("Jonas", "Birchby", "baker", "goat", "white"),
    person("Karin", "Greywick", "teacher", "duck", "white"),
    person("Kurt", "Foxley", "builder", "hen", "black"),
    person("Lydia", "Foxley", "clerk", "hen", "black"),
    person("Leon", "Mossdale", "sailor", "duck", "white"),
    person("Mabel", "Cragfell", "sailor", "cat", "yellow"),
    person("Milo", "Cragfell", "singer", "dog", "black"),
    person("Nadia", "Mossdale", "painter", "dog", "white"),
    person("Niels", "Nettlow", "sailor", "sheep", "blue"),
    person("Opal", "Larkham", "clerk", "fox", "red"),
    person("Oscar", "Aldmoor", "tailor", "rabbit", "yellow"),
    person("Petra", "Foxley", "doctor", "rabbit", "green"),
    person("Pavel", "Esker", "miller", "cat", "green"),
    person("Rosa", "Mossdale", "clerk", "parrot", "grey"),
    person("Rufus", "Kelder", "gardener", "cat", "grey"),
    person("Sylvia", "Hollin", "tailor", "horse", "red"),
    person("Simon", "Kelder", "doctor", "fox", "brown"),
    person("Thea", "Hollin", "teacher", "fox", "red"),
    person("Tobias", "Birchby", "gardener", "goat", "yellow"),
    person("Vera", "Foxley", "tailor", "parrot", "green"),
    person("Viktor", "Larkham", "builder", "sheep", "red"),
];

/// Which river a town lies on, in which region, and what it is known for.
pub(super) const TOWNS: [Town; 12] = [
    town("Aldmoor", "Brill", "east", "soap"),
    town("Birchby", "Arn", "north", "wool"),
    town("Cragfell", "Fenn", "west", "glass"),
    town("Dunmere", "Ettle", "north", "tea"),
    town("Esker", "Dove", "west", "bells"),
    town("Foxley", "Ettle", "east", "paper"),
    town("Greywick", "Dove", "north", "bread"),
    town("Hollin", "Brill", "south", "cheese"),
    town("Kelder", "Arn", "west", "rope"),
    town("Larkham", "Fenn", "east", "silver"),
    town("Mossdale", "Cade", "south", "honey"),
    town("Nettlow", "Cade", "south", "salt"),
];

impl Person {
    /// The town this one lives in.
    pub(super) fn home(&self) -> &'static Town {
        TOWNS.iter().find(|town| town.name == self.town).expect("everybody lives in one of the towns")
    }
}
