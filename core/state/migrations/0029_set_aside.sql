-- Calls whose rating was refused, as one whose account has another currency by now: they are owed until somebody has
-- them rated again.
create index call_record_set_aside on call_record (id) where rating = 'refused';
