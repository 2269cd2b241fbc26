//! The ways in which the questions of each category are put.
//!
//! Those of the test split alone are made of words that occur in the others too: they test whether a question is
//! understood in a new order of words, not whether a word is known.

use super::Split;
use super::picker::Picker;

/// A category's phrasings. `{ask}` is what to do (`{Ask}` at the beginning of a sentence), `{data}` what to do it with,
/// `{form}` a sentence about the form of the answer.
#[derive(Debug)]
pub struct Phrasings {
    /// Those of all splits.
    pub common: [&'static str; 15],
    /// Those of the test split alone.
    pub test_only: [&'static str; 5],
}

impl Phrasings {
    /// One of those that a split may use.
    pub(super) fn pick(&self, picker: &mut Picker, split: Split) -> &'static str {
        match split {
            Split::Test => picker.pick(&[&self.common[..], &self.test_only[..]].concat()),
            Split::Train | Split::Validation | Split::Calibration => picker.pick(&self.common),
        }
    }
}

pub(super) const FACTS: Phrasings = Phrasings {
    common: [
        "{Ask}. {form}",
        "Please {ask}. {form}",
        "{form} {Ask}.",
        "Can you {ask}? {form}",
        "Could you {ask}? {form}",
        "I want you to {ask}. {form}",
        "From what you know, {ask}. {form}",
        "You know the people and the towns. {Ask}. {form}",
        "Your task is to {ask}. {form}",
        "Think of the people and the towns, then {ask}. {form}",
        "Question: can you {ask}? {form}",
        "I would like you to {ask}. {form}",
        "Now {ask}. {form}",
        "{form} I want you to {ask}.",
        "Without a passage, {ask}. {form}",
    ],
    test_only: [
        "Now I want you to {ask}. {form}",
        "{form} Please {ask}.",
        "You know the towns. Could you {ask}? {form}",
        "Please {ask} from what you know. {form}",
        "Think of the people. {Ask}. {form}",
    ],
};

pub(super) const EXTRACTION: Phrasings = Phrasings {
    common: [
        "{data}\n{Ask}. {form}",
        "Passage: {data}\nTask: {ask}. {form}",
        "Read this: {data}\nNow {ask}. {form}",
        "{Ask} in this passage. {form}\n{data}",
        "Please {ask}. {form}\nPassage: {data}",
        "Here is a passage. {data}\nPlease {ask}. {form}",
        "Read the passage and {ask}. {form}\n{data}",
        "{data}\nFrom this passage, {ask}. {form}",
        "Text: {data}\nCan you {ask}? {form}",
        "{form} {Ask}.\n{data}",
        "I have a text: {data}\nI want you to {ask}. {form}",
        "Your task is to {ask}. {form}\nText: {data}",
        "{data}\nCould you {ask}? {form}",
        "Look at the text and {ask}. {form}\nText: {data}",
        "Here is what happened. {data}\n{form} {Ask}.",
    ],
    test_only: [
        "Here is a text. {data}\nCan you {ask}? {form}",
        "Read the text. {form} {Ask}.\n{data}",
        "Passage: {data}\nYour task is to {ask}. {form}",
        "{data}\nNow look at the passage and {ask}. {form}",
        "I want you to {ask}. {form}\nPassage: {data}",
    ],
};

pub(super) const SUMMARY: Phrasings = Phrasings {
    common: [
        "{Ask}. {form}\n{data}",
        "{data}\n{Ask}. {form}",
        "Please {ask}. {form}\n{data}",
        "Here are some lines.\n{data}\nPlease {ask}. {form}",
        "Make it short: {ask}. {form}\n{data}",
        "I have no time to read this:\n{data}\n{Ask}. {form}",
        "{form} {Ask}.\n{data}",
        "Your task is to {ask}. {form}\n{data}",
        "{data}\nNow {ask}. {form}",
        "Can you {ask}? {form}\n{data}",
        "Read the lines and {ask}. {form}\n{data}",
        "{data}\nIn short, {ask}. {form}",
        "I want you to {ask}. {form}\n{data}",
        "Summary wanted: {ask}. {form}\n{data}",
        "{data}\nCould you {ask}? {form}",
    ],
    test_only: [
        "Here are some lines.\n{data}\nYour task is to {ask}. {form}",
        "Make a summary: {ask}. {form}\n{data}",
        "{data}\nPlease read the lines and {ask}. {form}",
        "In short, please {ask}. {form}\n{data}",
        "I have no time to read. {form} {Ask}.\n{data}",
    ],
};

pub(super) const NOTATION: Phrasings = Phrasings {
    common: [
        "{Ask}: {data}. {form}",
        "Please {ask}: {data}. {form}",
        "{form} {Ask}: {data}.",
        "Here we have {data}. {Ask}. {form}",
        "Take these: {data}. {Ask}. {form}",
        "I have {data}. Please {ask}. {form}",
        "Given: {data}\nTask: {ask}. {form}",
        "Can you {ask}? {data}. {form}",
        "Your task is to {ask}. They are: {data}. {form}",
        "Look at these: {data}. Now {ask}. {form}",
        "I want you to {ask}. {form}\n{data}",
        "Given {data}, {ask}. {form}",
        "For a table, {ask}: {data}. {form}",
        "My notes say: {data}. {Ask}. {form}",
        "Could you {ask} for me? {data}. {form}",
    ],
    test_only: [
        "Now take these and {ask}: {data}. {form}",
        "My table says: {data}. Can you {ask}? {form}",
        "{form} Given {data}, please {ask}.",
        "For my notes, {ask}. They are: {data}. {form}",
        "Look at {data}. Your task is to {ask}. {form}",
    ],
};

pub(super) const ARITHMETIC: Phrasings = Phrasings {
    common: [
        "{data} {Ask}. {form}",
        "{Ask}. {data} {form}",
        "Please {ask}. {data} {form}",
        "Problem: {data} {Ask}. {form}",
        "{form} {Ask}. {data}",
        "Here is a problem. {data} {Ask} step by step. {form}",
        "{data} Can you {ask}? {form}",
        "Step by step, {ask}. {data} {form}",
        "Your task is to {ask}. {data} {form}",
        "I want you to {ask}. {form} {data}",
        "{data} Now {ask}. {form}",
        "Question: {data} Please {ask}. {form}",
        "Could you {ask}? {data} {form}",
        "Go digit by digit and {ask}. {data} {form}",
        "{data} {form} {Ask} digit by digit.",
    ],
    test_only: [
        "Here is a question. {data} Could you {ask}? {form}",
        "Problem: {data} Now {ask} step by step. {form}",
        "{form} {data} Please {ask}.",
        "Digit by digit, {ask}. {data} {form}",
        "{data} I want you to {ask}. {form}",
    ],
};

pub(super) const TRANSFORMS: Phrasings = Phrasings {
    common: [
        "{Ask}: {data}. {form}",
        "Please {ask}: {data}. {form}",
        "{form} {Ask}: {data}.",
        "Here is a list: {data}. {Ask}. {form}",
        "Take this list: {data}. {Ask}. {form}",
        "I have a list: {data}. Please {ask}. {form}",
        "List: {data}\nTask: {ask}. {form}",
        "Can you {ask}? {data}. {form}",
        "Your task is to {ask}. The list is: {data}. {form}",
        "Look at this list: {data}. Now {ask}. {form}",
        "I want you to {ask}. {form}\n{data}",
        "Given the list {data}, {ask}. {form}",
        "For this list, {ask}: {data}. {form}",
        "My list is: {data}. {Ask}. {form}",
        "Could you {ask} for me? {data}. {form}",
    ],
    test_only: [
        "Now take the list {data} and {ask}. {form}",
        "My list is: {data}. Can you {ask}? {form}",
        "{form} The list is {data}. Please {ask}.",
        "For me, please {ask}. List: {data}. {form}",
        "Look at the list {data}. Your task is to {ask}. {form}",
    ],
};

pub(super) const CODE: Phrasings = Phrasings {
    common: [
        "{Ask}. {form}\n{data}",
        "{data}\n{Ask}. {form}",
        "Please {ask}. {form}\n{data}",
        "Here is some code.\n{data}\nPlease {ask}. {form}",
        "{form} {Ask}.\n{data}",
        "Your task is to {ask}. {form}\n{data}",
        "{data}\nNow {ask}. {form}",
        "Can you {ask}? {form}\n{data}",
        "Read the comment and {ask}. {form}\n{data}",
        "{data}\nFollow the comment and {ask}. {form}",
        "I want you to {ask}. {form}\n{data}",
        "I have this code:\n{data}\n{Ask}. {form}",
        "Code:\n{data}\nTask: {ask}. {form}",
        "Could you {ask}? {form}\n{data}",
        "{data}\nHelp me and {ask}. {form}",
    ],
    test_only: [
        "Here is some code.\n{data}\nYour task is to {ask}. {form}",
        "Follow the comment to {ask}. {form}\n{data}",
        "{data}\nCould you {ask}? {form}",
        "Please read the comment. {form} {Ask}.\n{data}",
        "I have this code:\n{data}\nNow {ask} for me. {form}",
    ],
};

/// Of the last turn of a conversation.
pub(super) const DIALOGUE: Phrasings = Phrasings {
    common: [
        "{Ask}. {form}",
        "Please {ask}. {form}",
        "{form} {Ask}.",
        "Can you {ask}? {form}",
        "Could you {ask}? {form}",
        "Now {ask}. {form}",
        "I want you to {ask}. {form}",
        "Thank you. {Ask}. {form}",
        "Before I go, {ask}. {form}",
        "One more thing: {ask}. {form}",
        "Good. Now please {ask}. {form}",
        "I forgot what I said. {Ask}. {form}",
        "To be sure, {ask}. {form}",
        "{form} Can you {ask}?",
        "Let us end here. {Ask}. {form}",
    ],
    test_only: [
        "Thank you. Could you {ask}? {form}",
        "{form} Please {ask}.",
        "To be sure, I want you to {ask}. {form}",
        "Before we end, please {ask}. {form}",
        "Good. One more thing: can you {ask}? {form}",
    ],
};
