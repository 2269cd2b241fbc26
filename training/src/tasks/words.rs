//! The small vocabulary that passages, lists and conversations are made of.
//!
//! Everything is a frequent word, so that a vocabulary of 4,096 tokens holds it whole; pools are small, so that a small
//! model meets each word often.

/// People in passages and conversations. None of them is one of the world's people (`world.rs`), about whom facts hold.
pub(super) const NAMES: [&str; 32] = [
    "Amy", "Anna", "Ben", "Bill", "Carl", "Cora", "Dan", "Dora", "Emma", "Erik", "Finn", "Fred", "Grace", "Henry",
    "Ivan", "Jane", "Kate", "Liam", "Mary", "Noah", "Olga", "Paul", "Quinn", "Ruth", "Sam", "Tina", "Uma", "Vince",
    "Wendy", "Xavier", "Yara", "Zane",
];

/// Things, in the plural.
pub(super) const THINGS: [&str; 24] = [
    "apples", "baskets", "boats", "books", "bottles", "bowls", "boxes", "chairs", "clocks", "coats", "cups", "doors",
    "flags", "hats", "keys", "lamps", "maps", "plates", "ropes", "shoes", "spoons", "stones", "tables", "wheels",
];

/// Words of lists, in alphabetical order.
pub(super) const LISTED: [&str; 32] = [
    "apple", "barn", "boat", "bread", "chair", "cloud", "corn", "desk", "drum", "fish", "garden", "glass", "hill",
    "horse", "island", "jar", "kite", "lamp", "lemon", "mill", "moon", "nest", "onion", "paper", "plum", "ring",
    "river", "salt", "stone", "table", "tree", "wheel",
];

/// Colours.
pub(super) const COLOURS: [&str; 8] = ["black", "blue", "brown", "green", "grey", "red", "white", "yellow"];

/// Animals that one may keep.
pub(super) const ANIMALS: [&str; 10] =
    ["cat", "dog", "duck", "fox", "goat", "hen", "horse", "parrot", "rabbit", "sheep"];

/// Occupations.
pub(super) const WORK: [&str; 8] =
    ["baking", "cooking", "driving", "farming", "fishing", "painting", "singing", "teaching"];

/// Food.
pub(super) const FOODS: [&str; 10] =
    ["bread", "cheese", "corn", "fish", "honey", "pasta", "pie", "rice", "salad", "soup"];

/// Places, after `the`.
pub(super) const PLACES: [&str; 10] =
    ["market", "lake", "harbour", "station", "school", "mill", "barn", "garden", "bridge", "library"];

/// Days of the week, Monday first.
pub(super) const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Months, January first.
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Deeds done to things, in the past tense.
pub(super) const DEEDS: [&str; 8] = ["bought", "sold", "found", "lost", "painted", "carried", "cleaned", "counted"];

/// Chores to be done to a place.
pub(super) const CHORES: [&str; 8] = ["cleans", "paints", "visits", "opens", "closes", "measures", "guards", "repairs"];

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];

const TENS: [&str; 10] = ["", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// A number below ten thousand in words: `four thousand three hundred forty-two`.
pub(super) fn number_words(number: i64) -> String {
    let number = number as usize;
    let mut words = Vec::new();
    if number >= 1000 {
        words.push(format!("{} thousand", ONES[number / 1000]));
    }
    if number % 1000 >= 100 {
        words.push(format!("{} hundred", ONES[number % 1000 / 100]));
    }
    match number % 100 {
        0 if number > 0 => {}
        rest @ 0..20 => words.push(ONES[rest].to_owned()),
        rest if rest % 10 == 0 => words.push(TENS[rest / 10].to_owned()),
        rest => words.push(format!("{}-{}", TENS[rest / 10], ONES[rest % 10])),
    }
    words.join(" ")
}
