use paceline::checkpoint::*;
use paceline::model::*;
use paceline_training::{initial::initial, objective::*, optimizer::*};
use std::sync::Arc;
use std::time::Instant;
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let (layers, hidden, inner, heads, kv, sequences, length, burn) = (a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
    let config = ModelConfig {
        family: Family::Llama,
        vocab_size: 4096,
        hidden_size: hidden,
        intermediate_size: inner,
        layers,
        heads,
        kv_heads: kv,
        head_dim: hidden / heads,
        norm_eps: 1e-5,
        rope: Rope { theta: 1e4, scaling: RopeScaling::None },
        windows: Windows::None,
        context: 1024,
        tied_embeddings: true,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        stop_tokens: vec![],
        bos_token: None,
    };
    let kernels = Arc::new(paceline_kernels::Kernels::new(2).unwrap());
    let compute =
        if burn == 1 { Compute::Burn(::burn::tensor::Device::flex()) } else { Compute::Kernels(kernels.clone()) };
    let mut model = Trainable::new(config.clone(), &compute, initial(&config, 1));
    let n: usize = model.parameters().map(|(_, t)| t.shape().num_elements()).sum();
    let mut opt = Optimizer::new(OptimizerSettings::default(), kernels);
    let rows = sequences * length;
    for step in 0..6 {
        let tokens: Vec<u32> = (0..rows as u32).map(|i| (i * 7919 + step * 31) % 4096).collect();
        let targets = tokens.iter().map(|t| (t * 3 + 1) % 4096).collect();
        let s = Sample { batch: Batch::whole(tokens, length), targets, weights: vec![1.0 / rows as f32; rows] };
        let t = Instant::now();
        let (loss, g) = gradients(&model, &s, None);
        let t1 = t.elapsed();
        let norm = opt.step(&mut model, &g, 1e-3);
        println!(
            "{:.1} M: loss {loss:.4} norm {norm:.3} gradients {:.3} s, optimizer {:.3} s, {:.0} tokens/s",
            n as f64 / 1e6,
            t1.as_secs_f64(),
            (t.elapsed() - t1).as_secs_f64(),
            rows as f64 / t.elapsed().as_secs_f64()
        );
    }
}
