"""How the class tables in kind_jax/data/tables are made, from WordNet."""
