def of_films(films):
    return None
