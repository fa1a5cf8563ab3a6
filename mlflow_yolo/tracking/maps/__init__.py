"""Maps of where the model looks, drawn while it trains: of which images, how often, and where they go."""
