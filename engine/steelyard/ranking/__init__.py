"""What the commands on finished comparisons compute and print: rank, winrate, bias."""
