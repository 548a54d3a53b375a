#!/bin/sh
# From text files to a model that answers politely: a tokenizer, pretraining, SFT, a reward model, PPO, and its answers.
#
#     assets/from_scratch.sh DATA OUT
#
# DATA has text/pg_children_stories.txt.gz, sft/general_train.jsonl.gz, sft/general_test.jsonl.gz,
# pref/politeness_train.jsonl and pref/politeness_test.jsonl; docs/from-scratch.md says what they hold.
# TEMPER is the binary, `temper` by default, and SEED the seed of all stages, 0 by default.
# TINY=1 takes a few steps of each stage with a small model, as a trial.
# A run that was interrupted continues where it stopped.
set -eu

[ $# -eq 2 ] || { echo "usage: $0 DATA OUT" >&2; exit 2; }
data=$1
out=$2
temper=${TEMPER:-temper}
seed=${SEED:-0}

stories=$data/text/pg_children_stories.txt.gz
instructions=$data/sft/general_train.jsonl.gz
instructions_test=$data/sft/general_test.jsonl.gz
pairs=$data/pref/politeness_train.jsonl
pairs_test=$data/pref/politeness_test.jsonl
for file in "$stories" "$instructions" "$instructions_test" "$pairs" "$pairs_test"; do
    [ -f "$file" ] || { echo "$0: $file is missing" >&2; exit 1; }
done

# Everything else is chosen from the model and the data, and stands in the config.toml of each run.
if [ "${TINY:-0}" = 1 ]; then
    vocab_size=512 shape=tiny context=128
    steps="--set max_steps=4"
    ppo="--set max_steps=2 --set batch_size=8 --set rollout.max_new_tokens=8"
else
    vocab_size=4096 shape=medium context=512
    steps=""
    ppo="--set max_steps=40"
fi

# A stage that has begun is resumed; one that is finished is left alone.
stage() {
    directory=$1
    shift
    began=$(date +%s)
    if [ -d "$directory" ]; then
        "$temper" "$@" --seed "$seed" --out "$directory" --resume
    else
        "$temper" "$@" --seed "$seed" --out "$directory"
    fi
    echo "$directory: $(($(date +%s) - began)) seconds"
}

mkdir -p "$out"
[ -d "$out/tokenizer" ] ||
    "$temper" tokenizer train --data "$stories" "$instructions" "$pairs" --vocab-size $vocab_size --out "$out/tokenizer"
[ -d "$out/base" ] ||
    "$temper" init --tokenizer "$out/tokenizer" --shape $shape --set max_seq_len=$context --seed "$seed" \
        --out "$out/base"

# The settings are several words each.
# shellcheck disable=SC2086
{
    stage "$out/pretrain" sft --data "$stories" --model "$out/base" $steps
    stage "$out/sft" sft --data "$instructions" --eval-data "$instructions_test" --model "$out/pretrain/final" $steps
    stage "$out/reward" reward --data "$pairs" --eval-data "$pairs_test" --model "$out/sft/final" $steps
    stage "$out/ppo" ppo --policy "$out/sft/final" --reward "$out/reward/final" --prompts "$pairs" \
        --eval-data "$pairs_test" $ppo
}

"$temper" eval --model "$out/sft/final" --data "$instructions_test" | tee "$out/sft.json"
"$temper" eval --model "$out/reward/final" --data "$pairs_test" | tee "$out/reward.json"
"$temper" eval --model "$out/ppo/final" --against "$out/sft/final" --judge "$out/reward/final" --data "$pairs_test" |
    tee "$out/ppo.json"
for prompt in "What is the opposite of 'hot'?" "Name a colour." "Tell me about a rabbit."; do
    for model in sft ppo; do
        echo "$model: $prompt"
        "$temper" generate --model "$out/$model/final" --prompt "$prompt" --max-new-tokens 64 --greedy
    done
done
"$temper" report "$out/ppo"
echo "talk to it: $temper chat --model $out/ppo/final"
