package grants

// Forfeit is how many uses a token may have had while that long went by.
var Forfeit = forfeit
