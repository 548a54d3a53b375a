#!/bin/sh
# How the automatic learning rates compare with half and twice as much: the runs behind docs/defaults.md.
#
#     assets/sweep.sh DATA OUT STAGE MODEL UPDATES [SETTING...]
#
# STAGE is sft, reward or dpo; MODEL a preset or a directory; UPDATES how many updates each run makes. A SETTING such as
# `batch_size=4` goes to every run. Two datasets of DATA are used for each stage. SEEDS are "0 1 2" by default, and
# FACTORS of the automatic rate "1 0.5 2", the first of them 1. TEMPER is the binary, `temper` by default.
# One line is printed for each run, and a run that is already in OUT is not made again.
set -eu

[ $# -ge 5 ] || { echo "usage: $0 DATA OUT STAGE MODEL UPDATES [SETTING...]" >&2; exit 2; }
data=$1 out=$2 stage=$3 model=$4 updates=$5
shift 5
temper=${TEMPER:-temper}
settings="--set max_steps=$updates"
for setting in "$@"; do
    settings="$settings --set $setting"
done
[ "$stage" = reward ] || settings="$settings --set samples=0"

label=$(echo "$model" | sed 's|^/*||; s|/|-|g')

mkdir -p "$out"
# Held-out rows, cut so that an evaluation is short.
head_of() {
    [ -f "$2" ] || gzip -dc "$1" | head -n "$3" > "$2"
}
case $stage in
    sft)
        names="general gsm8k"
        head_of "$data/sft/general_test.jsonl.gz" "$out/general_test.jsonl" 200
        head_of "$data/sft/gsm8k_test.jsonl.gz" "$out/gsm8k_test.jsonl" 200
        general=$data/sft/general_train.jsonl.gz gsm8k=$data/sft/gsm8k_train.jsonl.gz ;;
    reward | dpo)
        names="politeness helpful"
        cp -n "$data/pref/politeness_test.jsonl" "$out/politeness_test.jsonl" 2> /dev/null || true
        head_of "$data/pref/hh_helpful_test.jsonl.gz" "$out/helpful_test.jsonl" 200
        politeness=$data/pref/politeness_train.jsonl helpful=$data/pref/hh_helpful_train.jsonl.gz ;;
    *) echo "$0: unknown stage: $stage" >&2; exit 2 ;;
esac

for name in $names; do
    eval "train=\$$name"
    for seed in ${SEEDS:-0 1 2}; do
        rate=auto
        for factor in ${FACTORS:-1 0.5 2}; do
            run=$out/$stage-$label-$name-$seed-$factor
            [ "$factor" = 1 ] || rate=$(awk "BEGIN { print $auto * $factor }")
            if [ ! -d "$run/final" ]; then
                rm -rf "$run"
                # The settings are several words.
                # shellcheck disable=SC2086
                "$temper" -q "$stage" --model "$model" --data "$train" --eval-data "$out/${name}_test.jsonl" \
                    --out "$run" --seed "$seed" --set learning_rate="$rate" $settings
            fi
            used=$(sed -n 's/^learning_rate = \([0-9.e-]*\).*/\1/p' "$run/config.toml" | head -n 1)
            [ "$factor" = 1 ] && auto=$used
            last=$(grep '"eval_loss"' "$run/metrics.jsonl" | tail -n 1)
            figure() { echo "$last" | sed -n "s|.*\"$1\":\([0-9.e-]*\).*|\1|p"; }
            echo "$stage $model $name seed $seed rate $used ($factor) loss $(figure eval_loss)" \
                "accuracy $(figure eval_accuracy)$(figure eval_rewards/accuracies)"
        done
    done
done
