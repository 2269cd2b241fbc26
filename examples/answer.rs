//! A program that uses the library alone, without the command line and what it is made of:
//!
//! ```sh
//! cargo run --release --no-default-features --example answer -- models/target "Work out 319 + 577."
//! ```

use std::error::Error;
use std::io::Write;

use paceline::{Engine, EngineConfig, Event, GenerationConfig, Message, Prompt};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(question)) = (arguments.next(), arguments.next()) else {
        return Err("Name a model's directory and a question.".into());
    };
    let engine = Engine::load(&EngineConfig::new(&model))?;
    let prompt = Prompt::Messages(vec![Message::new("user", &question)]);
    for event in engine.generate(prompt, &GenerationConfig::default())? {
        match event? {
            Event::Token { text, .. } => print!("{text}"),
            Event::Done { text, answer } => println!("{text}\n[{} tokens]", answer.tokens.len()),
            Event::Prefill { .. } => {}
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}
